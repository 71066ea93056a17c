-- checkout_validate_cart: refuses a cart that cannot be checked out, before the first write.
--
-- Called under the cart lock with a clock read after it: a quote that ran out while the lock was waited for is expired.

create or replace function checkout_validate_cart(cart cart_records, now timestamptz)
returns void
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_order_ids uuid[];
begin
  if v_cart.status <> 'active' then
    raise exception 'cart % is %, not active', v_cart.id, v_cart.status
      using errcode = 'OC002',
            detail = jsonb_build_object('cart_id', v_cart.id, 'status', v_cart.status),
            hint = 'Look at the cart; only an active one can be checked out.';
  end if;

  if v_cart.valid_until is null or v_cart.valid_until <= checkout_validate_cart.now then
    raise exception 'the quote of cart % ran out at %', v_cart.id, checkout_timestamp(v_cart.valid_until)
      using errcode = 'OC003',
            detail = jsonb_build_object('cart_id', v_cart.id, 'valid_until', checkout_timestamp(v_cart.valid_until),
                                        'now', checkout_timestamp(checkout_validate_cart.now)),
            hint = 'Ask for a new quote, show it to the buyer, and check out again.';
  end if;

  -- A cart that keeps an anchor of the host's must not take over what stands under it. One that is written there from now
  -- on is neither billed nor told: the rows of this conversion are counted.
  if v_cart.checkout_group_id is not null then
    select array_agg(vendor_order.id) into v_order_ids
      from (select each.id from vendor_orders as each where each.checkout_group_id = v_cart.checkout_group_id order by each.id limit 20) as vendor_order;
    if v_order_ids is not null then
      perform cart_raise_inconsistent(v_cart.id, jsonb_build_object(
        'problem', 'anchor_has_orders', 'checkout_group_id', v_cart.checkout_group_id, 'vendor_order_ids', v_order_ids));
    end if;
    if exists (select from outbox_events as event
                where event.aggregate_id = v_cart.checkout_group_id
                  and event.event_type in ('checkout.vendor_orders_created', 'checkout.converted'))
    then
      perform cart_raise_inconsistent(v_cart.id, jsonb_build_object(
        'problem', 'anchor_has_events', 'checkout_group_id', v_cart.checkout_group_id));
    end if;
  end if;
end;
$$;

revoke execute on function checkout_validate_cart(cart_records, timestamptz) from public;

comment on function checkout_validate_cart(cart_records, timestamptz) is
  'Step of checkout_execute: raises OC002 not active, OC003 expired, OC007 if its anchor carries orders or events of a conversion already. Writes nothing.';
