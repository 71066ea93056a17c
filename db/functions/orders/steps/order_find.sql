-- order_find: an order for whoever may see it.
--
-- Whose order it is, the caller says: an order of somebody else is told apart from one that is not there by nothing.

create or replace function order_find(order_id uuid, buyer_store_id uuid, vendor_store_id uuid)
returns vendor_orders
language plpgsql
stable
as $$
declare
  v_order vendor_orders;
begin
  if order_find.order_id is null then
    perform checkout_raise_invalid('order_id', 'is required');
  elsif num_nonnulls(order_find.buyer_store_id, order_find.vendor_store_id) = 0 then
    perform checkout_raise_invalid('buyer_store_id', 'is required, or vendor_store_id is');
  end if;

  select vendor_order.* into v_order
    from vendor_orders as vendor_order
   where vendor_order.id = order_find.order_id
     and vendor_order.buyer_store_id = coalesce(order_find.buyer_store_id, vendor_order.buyer_store_id)
     and vendor_order.vendor_store_id = coalesce(order_find.vendor_store_id, vendor_order.vendor_store_id);
  if not found then
    raise exception 'there is no order % of this store', order_find.order_id
      using errcode = 'OC011',
            detail = jsonb_build_object('order_id', order_find.order_id),
            hint = 'Look at the id; another store''s order is never found.';
  end if;
  return v_order;
end;
$$;

revoke execute on function order_find(uuid, uuid, uuid) from public;

comment on function order_find(uuid, uuid, uuid) is
  'Step of order_get and order_changes_list: an order of this buyer or this vendor. Raises OC005 without an order id, or without either store, '
  'OC011 for an unknown order or somebody else''s.';
