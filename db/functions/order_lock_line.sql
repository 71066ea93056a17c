-- order_lock_line: locks the order of a line, then the line, and returns the line.

create or replace function order_lock_line(line_id uuid)
returns order_line_items
language plpgsql
as $$
declare
  v_line order_line_items;
begin
  select line.* into v_line from order_line_items as line where line.id = order_lock_line.line_id and line.cart_item_id = line.id;
  if not found then
    raise exception 'there is no order line % that a checkout made', order_lock_line.line_id
      using errcode = 'OC011',
            detail = jsonb_build_object('line_item_id', order_lock_line.line_id),
            hint = 'Look at the id; orders that were there before pycheckout are not its to change.';
  end if;
  perform order_lock(v_line.order_id);
  select line.* into v_line from order_line_items as line where line.id = order_lock_line.line_id for update;
  return v_line;
end;
$$;

revoke execute on function order_lock_line(uuid) from public;

comment on function order_lock_line(uuid) is
  'Step of the order functions: locks a line behind its order and returns it. Raises OC011 if no checkout made it.';
