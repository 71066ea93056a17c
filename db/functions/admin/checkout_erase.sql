-- checkout_erase: the addresses and notes of a person go, in cart, orders and events; what was bought, for how much, stays.
--
-- With cart_purge the one way past the triggers that guard converted carts: it writes a permit for this cart, valid in
-- this transaction alone. The word that a checkout writes on a short line is nobody's note, and replays are told by it.
-- What consumers were sent, they must erase themselves.

create or replace function checkout_erase(cart_id uuid)
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_blank constant address_t := jsonb_populate_record(null::address_t, '{}');
  v_transaction_id constant xid8 := pg_current_xact_id();
  v_checkout_group_id uuid;
  v_has_cart boolean;
  v_order_ids uuid[];
  v_now timestamptz;
  v_rows bigint;
  v_changed bigint := 0;
begin
  if checkout_erase.cart_id is null then
    perform checkout_raise_invalid('cart_id', 'is required');
  end if;

  select cart.checkout_group_id into v_checkout_group_id
    from cart_records as cart where cart.id = checkout_erase.cart_id for update;
  v_has_cart := found;
  -- the orders of a cart that cart_purge deleted say themselves whose they are
  select array_agg(vendor_order.id) into v_order_ids
    from (select each.id from vendor_orders as each
           where case when v_has_cart then each.checkout_group_id = v_checkout_group_id else each.cart_id = checkout_erase.cart_id end
           order by each.id
             for update) as vendor_order;
  if not v_has_cart and v_order_ids is null then
    raise exception 'there is no cart %', checkout_erase.cart_id
      using errcode = 'OC001',
            detail = jsonb_build_object('cart_id', checkout_erase.cart_id),
            hint = 'Check the cart id; neither a cart nor an order has it.';
  end if;
  v_now := clock_timestamp();

  insert into cart_change_permits (cart_id, transaction_id)
  values (checkout_erase.cart_id, v_transaction_id) on conflict do nothing;
  update cart_records as cart
     set shipping_address = v_blank, updated_at = v_now
   where cart.id = checkout_erase.cart_id and num_nonnulls(cart.shipping_address) = 1 and cart.shipping_address is distinct from v_blank;
  get diagnostics v_rows = row_count;
  v_changed := v_changed + v_rows;
  delete from cart_change_permits as permit where permit.cart_id = checkout_erase.cart_id;

  update vendor_orders as vendor_order
     set shipping_address = case when num_nonnulls(vendor_order.shipping_address) = 1 then v_blank end, notes = null, updated_at = v_now
   where vendor_order.id = any (v_order_ids)
     and (vendor_order.notes is not null or num_nonnulls(vendor_order.shipping_address) = 1 and vendor_order.shipping_address is distinct from v_blank);
  get diagnostics v_rows = row_count;
  v_changed := v_changed + v_rows;

  update order_line_items as line
     set notes = null, updated_at = v_now
   where line.order_id = any (v_order_ids) and line.notes <> 'insufficient_inventory';
  get diagnostics v_rows = row_count;
  v_changed := v_changed + v_rows;

  update outbox_events as event
     set payload = jsonb_set(event.payload, '{data,reason}', '"erased"')
   where event.aggregate_id = any (v_order_ids) and event.event_type in ('vendor_order.canceled', 'order_line.released')
     and event.payload #>> '{data,reason}' <> 'erased';
  get diagnostics v_rows = row_count;
  return v_changed + v_rows;
end;
$$;

revoke execute on function checkout_erase(uuid) from public;

comment on function checkout_erase(uuid) is
  'Blanks the addresses and notes of a person in a cart, its orders and lines, and the reasons in their events (which become "erased"), and returns '
  'how many rows it changed: 0 when it is called again. Amounts, states and ids stay, and so do replays. Also for a cart that cart_purge deleted. '
  'Locks the cart, then its orders, until the commit. For the owner. Raises OC001 if neither a cart nor an order has the id, OC005 for a null one.';
