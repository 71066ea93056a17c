-- order_last_change: the last thing that happened to an order, or to one line of it. Null if nothing has since its checkout.

create or replace function order_last_change(order_id uuid, line_id uuid default null)
returns order_changes
language plpgsql
stable
as $$
declare
  v_change order_changes;
begin
  select change.* into v_change
    from order_changes as change
   where change.order_id = order_last_change.order_id
     and (order_last_change.line_id is null
          or change.lines @> jsonb_build_array(jsonb_build_object('line_item_id', order_last_change.line_id)))
   order by change.created_at desc, change.id desc
   limit 1;
  return v_change;
end;
$$;

revoke execute on function order_last_change(uuid, uuid) from public;

comment on function order_last_change(uuid, uuid) is
  'Step of the order functions: the newest row of order_changes of an order, or of a line of it; null if there is none.';
