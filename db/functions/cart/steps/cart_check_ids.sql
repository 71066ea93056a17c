-- cart_check_ids: refuses ids of groups and items that orders and their lines carry already, which the checkout could not give away again.
--
-- A cart that is purged leaves them free here and taken there. Looked for once the quote is written: whoever had them in a
-- cart is gone by then, and this statement sees the orders that it left. One look by index an id, whatever the planner thinks of a quote's size.

create or replace function cart_check_ids(quote cart_records, groups cart_vendor_groups[], items cart_items[])
returns void
language plpgsql
as $$
declare
  v_id uuid;
  v_field text;
begin
  select taken.id, taken.field into v_id, v_field
    from (select part.ordinality as group_no, 0::bigint as item_no, part.id, format('cart.vendor_groups[%s].id', part.ordinality - 1) as field
            from unnest(cart_check_ids.groups) with ordinality as part
           cross join lateral (select from vendor_orders as vendor_order where vendor_order.id = part.id limit 1) as carried
           union all
          select part.ordinality, item.item_no, item.id, format('cart.vendor_groups[%s].items[%s].id', part.ordinality - 1, item.item_no - 1)
            from (select each.id, each.vendor_store_id, row_number() over (partition by each.vendor_store_id order by each.ordinality) as item_no
                    from unnest(cart_check_ids.items) with ordinality as each) as item
           cross join lateral (select from order_line_items as line where line.id = item.id limit 1) as carried
            join unnest(cart_check_ids.groups) with ordinality as part on part.vendor_store_id = item.vendor_store_id) as taken
   order by taken.group_no, taken.item_no
   limit 1;
  if found then
    perform cart_raise_inconsistent((cart_check_ids.quote).id, jsonb_build_object('problem', 'id_taken', 'field', v_field, 'id', v_id));
  end if;
end;
$$;

revoke execute on function cart_check_ids(cart_records, cart_vendor_groups[], cart_items[]) from public;

comment on function cart_check_ids(cart_records, cart_vendor_groups[], cart_items[]) is
  'Step of cart_put: raises OC007, with the place in the quote, for the id of a group that an order has or of an item that an order line has.';
