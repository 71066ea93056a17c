-- checkout_erase: a person goes out of a cart, its orders and its events; what was bought, for how much, stays.
--
-- With cart_purge the one way past the triggers that guard converted carts: it writes a permit for this cart, valid in
-- this transaction alone. The word that a checkout writes on a short line is nobody's note, and replays are told by it.
-- Nothing is left that a guess could be tried on: the keys go, since each holds a hash over the address, and an address
-- of nulls tells checkout_execute to bind none again. What consumers were sent, they must erase themselves.
--
-- Locks the cart, its orders, then its events, by their ids. A relay holds a lock on an event for a statement, never
-- while it waits for a broker; what it writes afterwards about a broker that refuses takes another call.

create or replace function checkout_erase(cart_id uuid)
returns bigint
language plpgsql
security definer
set search_path from current
as $$
#variable_conflict use_column   -- ON CONFLICT names columns
declare
  v_blank constant address_t := jsonb_populate_record(null::address_t, '{}');
  v_transaction_id constant xid8 := pg_current_xact_id();
  v_checkout_group_id uuid;
  v_buyer_store_ids uuid[];
  v_has_cart boolean;
  v_order_ids uuid[];
  v_aggregate_ids uuid[];
  v_event_ids uuid[];
  v_ids uuid[];
  v_now timestamptz;
  v_rows bigint;
  v_left bigint;
  v_changed bigint := 0;
begin
  if checkout_erase.cart_id is null then
    perform checkout_raise_invalid('cart_id', 'is required');
  end if;

  select cart.checkout_group_id, array[cart.buyer_store_id] into v_checkout_group_id, v_buyer_store_ids
    from cart_records as cart where cart.id = checkout_erase.cart_id for update;
  v_has_cart := found;
  -- Orders say themselves whose they are, also those of a cart that cart_purge deleted; of an earlier system's the anchor does.
  select array_agg(vendor_order.id), array_agg(vendor_order.id) || array_agg(vendor_order.checkout_group_id),
         v_buyer_store_ids || array_agg(vendor_order.buyer_store_id)
    into v_order_ids, v_aggregate_ids, v_buyer_store_ids
    from (select each.id, each.checkout_group_id, each.buyer_store_id
            from vendor_orders as each
           where each.cart_id = checkout_erase.cart_id or (each.cart_id is null and each.checkout_group_id = v_checkout_group_id)
           order by each.id
             for update) as vendor_order;
  if not v_has_cart and v_order_ids is null then
    raise exception 'there is no cart %', checkout_erase.cart_id
      using errcode = 'OC001',
            detail = jsonb_build_object('cart_id', checkout_erase.cart_id),
            hint = 'Check the cart id; neither a cart nor an order has it.';
  end if;
  v_aggregate_ids := v_aggregate_ids || v_checkout_group_id;
  v_now := clock_timestamp();

  insert into cart_change_permits (cart_id, transaction_id)
  values (checkout_erase.cart_id, v_transaction_id) on conflict (cart_id) do nothing;
  v_ids := array(
    select cart.id from cart_records as cart
     where cart.id = checkout_erase.cart_id
       and (cardinality(cart.ad_tokens) > 0 or num_nonnulls(cart.shipping_address) = 1 and cart.shipping_address is distinct from v_blank));
  update cart_records as cart
     set shipping_address = case when num_nonnulls(cart.shipping_address) = 1 then v_blank end,
         ad_tokens = case when cart.ad_tokens is not null then '{}'::text[] end, updated_at = v_now
   where cart.id = any (v_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_ids) then
    perform checkout_raise_rows(checkout_erase.cart_id, 'cart_records', cardinality(v_ids), v_rows);
  end if;
  v_changed := v_changed + v_rows;
  delete from cart_change_permits as permit where permit.cart_id = checkout_erase.cart_id;

  v_ids := array(
    select vendor_order.id from vendor_orders as vendor_order
     where vendor_order.id = any (v_order_ids)
       and (num_nonnulls(vendor_order.notes, vendor_order.purchase_order, vendor_order.metadata) + num_nonnulls(vendor_order.billing_address) > 0
            or num_nonnulls(vendor_order.shipping_address) = 1 and vendor_order.shipping_address is distinct from v_blank
            or vendor_order.attributed_token is distinct from ad_token_public(vendor_order.attributed_token)));
  update vendor_orders as vendor_order
     set shipping_address = case when num_nonnulls(vendor_order.shipping_address) = 1 then v_blank end, notes = null,
         billing_address = null, purchase_order = null, metadata = null,
         attributed_token = ad_token_public(vendor_order.attributed_token),
         updated_at = greatest(v_now, vendor_order.updated_at)   -- which the next change comes after
   where vendor_order.id = any (v_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_ids) then
    perform checkout_raise_rows(checkout_erase.cart_id, 'vendor_orders', cardinality(v_ids), v_rows);
  end if;
  v_changed := v_changed + v_rows;

  v_ids := array(
    select line.id from order_line_items as line
     where line.order_id = any (v_order_ids)
       and (not order_is_checkout_note(line.notes) or line.attributed_token is distinct from ad_token_public(line.attributed_token))
     order by line.id   -- as order_lock locks them
       for no key update);
  update order_line_items as line
     set notes = case when order_is_checkout_note(line.notes) then line.notes end,
         attributed_token = ad_token_public(line.attributed_token), updated_at = v_now
   where line.id = any (v_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_ids) then
    perform checkout_raise_rows(checkout_erase.cart_id, 'order_line_items', cardinality(v_ids), v_rows);
  end if;
  v_changed := v_changed + v_rows;

  v_ids := array(
    select change.id from order_changes as change
     where change.order_id = any (v_order_ids)
       and (num_nonnulls(change.reason, change.details) > 0 or jsonb_path_exists(change.lines, '$[*].reason ? (@ != null)')));
  update order_changes as change
     set reason = null, details = null,
         lines = (select coalesce(jsonb_agg(case when part.value ? 'reason' then part.value || '{"reason": null}' else part.value end order by part.place), '[]')
                    from jsonb_array_elements(case when jsonb_typeof(change.lines) = 'array' then change.lines else '[]' end) with ordinality as part (value, place))
   where change.id = any (v_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_ids) then
    perform checkout_raise_rows(checkout_erase.cart_id, 'order_changes', cardinality(v_ids), v_rows);
  end if;
  v_changed := v_changed + v_rows;

  update payment_events as event set details = null where event.order_id = any (v_order_ids) and event.details is not null;
  get diagnostics v_rows = row_count;
  v_left := (select count(*) from payment_events as event where event.order_id = any (v_order_ids) and event.details is not null);
  if v_left > 0 then
    perform checkout_raise_rows(checkout_erase.cart_id, 'payment_events', v_rows + v_left, v_rows);
  end if;
  v_changed := v_changed + v_rows;

  -- by the primary key: it begins with the buyer
  delete from checkout_requests as request
   where request.buyer_store_id = any (v_buyer_store_ids) and request.cart_id = checkout_erase.cart_id;
  get diagnostics v_rows = row_count;
  v_left := (select count(*) from checkout_requests as request
              where request.buyer_store_id = any (v_buyer_store_ids) and request.cart_id = checkout_erase.cart_id);
  if v_left > 0 then
    perform checkout_raise_rows(checkout_erase.cart_id, 'checkout_requests', v_rows + v_left, v_rows);
  end if;
  v_changed := v_changed + v_rows;

  -- A sent event is in no index by its aggregate: this reads the outbox, which outbox_purge keeps small, once.
  select array_agg(event.id) into v_event_ids
    from (select each.id
            from outbox_events as each
           where each.aggregate_id = any (v_aggregate_ids)
             and (each.last_error is not null
                  or each.payload ->> 'event_id' = each.id::text
                     and (each.payload #>> '{data,reason}' <> 'erased' or num_nonnulls(nullif(each.payload #> '{data,purchase_order}', 'null'),
                                                                                       nullif(each.payload #> '{data,metadata}', 'null'),
                                                                                       nullif(each.payload #> '{data,details}', 'null')) > 0
                          or jsonb_path_exists(each.payload, '$.data.changes[*].reason ? (@ != null)')))
           order by each.id   -- as a relay locks those that it marks
             for update) as event;
  update outbox_events as event
     set last_error = null,
         payload = case when event.payload ->> 'event_id' = event.id::text
                        then jsonb_set(event.payload, '{data}', (event.payload -> 'data') || (
                               select coalesce(jsonb_object_agg(member.key, case
                                        when member.key = 'reason' then '"erased"'
                                        when member.key = 'changes' then (
                                          select coalesce(jsonb_agg(case when part.value ? 'reason' then part.value || '{"reason": null}' else part.value end
                                                                    order by part.place), '[]')
                                            from jsonb_array_elements(member.value) with ordinality as part (value, place))
                                        else 'null'::jsonb end), '{}')
                                 from jsonb_each(event.payload -> 'data') as member
                                where member.key in ('reason', 'purchase_order', 'metadata', 'details', 'changes') and member.value <> 'null'))
                        else event.payload end
   where event.id = any (v_event_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> coalesce(cardinality(v_event_ids), 0) then
    perform checkout_raise_rows(checkout_erase.cart_id, 'outbox_events', coalesce(cardinality(v_event_ids), 0), v_rows);
  end if;
  v_changed := v_changed + v_rows;
  v_ids := array(
    select parked.event_id from outbox_dead_letters as parked
     where parked.aggregate_id = any (v_aggregate_ids) and parked.error <> 'erased'
     order by parked.event_id
       for no key update);
  update outbox_dead_letters as parked
     set error = 'erased'
   where parked.event_id = any (v_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_ids) then
    perform checkout_raise_rows(checkout_erase.cart_id, 'outbox_dead_letters', cardinality(v_ids), v_rows);
  end if;
  v_changed := v_changed + v_rows;

  -- dynamic, because the table is there only where an earlier system was, until the DBA drops it
  if exists (select from pg_attribute where attrelid = to_regclass('checkout_groups_archive') and attname = 'attributed_ad_click_id') then
    execute 'update checkout_groups_archive set attributed_ad_click_id = null where id = any ($1) and attributed_ad_click_id is not null'
      using v_aggregate_ids;
    get diagnostics v_rows = row_count;
    execute 'select count(*) from checkout_groups_archive where id = any ($1) and attributed_ad_click_id is not null' into v_left using v_aggregate_ids;
    if v_left > 0 then
      perform checkout_raise_rows(checkout_erase.cart_id, 'checkout_groups_archive', v_rows + v_left, v_rows);
    end if;
    v_changed := v_changed + v_rows;
  end if;
  return v_changed;
end;
$$;

revoke execute on function checkout_erase(uuid) from public;

comment on function checkout_erase(uuid) is
  'Takes a person out of a cart, its orders, lines and events: blanks addresses, notes, purchase order, metadata, details of payments, the reasons and details of changes and those in events (which become "erased"), deletes the '
  'keys bound to the cart, its ad tokens and what of their claims nobody is shown, and clears errors that a broker sent and the click of an earlier '
  'system. Returns how many rows it changed: 0 when it is called again. Amounts, states and ids stay, and so do replays, which bind no key any more. '
  'Also for a cart that cart_purge deleted. Locks the cart, then its orders, until the commit; never waits for a broker. For the owner. Raises OC001 '
  'if neither a cart nor an order has the id, OC005 for a null one, OC007 if a trigger keeps a row from being written.';
