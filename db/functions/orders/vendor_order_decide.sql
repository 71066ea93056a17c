-- vendor_order_decide: a vendor answers an order, line by line, in one call: accepts all, a part, or nothing of it.
--
-- Lines that hold nothing are past a decision. What is refused goes back to the shelf; lines that are not named are accepted whole.

create or replace function vendor_order_decide(order_id uuid, decisions jsonb default null, change_key text default null)
returns jsonb
language plpgsql
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_allowed constant text[] := array['created_pending', 'hold'];
  v_decisions jsonb;
  v_hash bytea;
  v_order vendor_orders;
  v_change order_changes;
  v_line_ids uuid[];
  v_refused integer[];
  v_reasons text[];
  v_wrong record;
begin
  if vendor_order_decide.order_id is null then
    perform checkout_raise_invalid('order_id', 'is required');
  end if;
  v_decisions := order_read_decisions(vendor_order_decide.decisions);
  v_hash := order_read_key(vendor_order_decide.change_key, v_decisions <> '{}', jsonb_build_object(
    'kind', 'decided', 'accept_qtys', (select jsonb_object_agg(decision.key, decision.value -> 'accept_qty') from jsonb_each(v_decisions) as decision)));

  v_order := order_lock(vendor_order_decide.order_id);
  v_change := order_check_key(v_order.id, vendor_order_decide.change_key, v_hash);
  if v_change.id is null and vendor_order_decide.change_key is null and v_order.status::text <> all (v_allowed) then
    v_change := order_last_change(v_order.id);
    v_change := case when v_change.kind = 'decided' and v_change.change_key is null then v_change end;
  end if;
  if v_change.id is not null then
    return order_describe_change(v_order, v_change) || jsonb_build_object('replayed', true);
  elsif v_order.status::text <> all (v_allowed) then
    perform order_raise_state('order', v_order.id, v_order.status::text, v_allowed);
  end if;

  select array_agg(line.id order by line.id), array_agg(line.reserved_qty - coalesce(line.accept_qty, line.reserved_qty) order by line.id),
         array_agg(line.reason order by line.id)
    into v_line_ids, v_refused, v_reasons
    from (select own.id, own.reserved_qty, (v_decisions -> own.id::text ->> 'accept_qty')::integer as accept_qty, v_decisions -> own.id::text ->> 'reason' as reason
            from order_line_items as own
           where own.order_id = v_order.id and own.cart_item_id = own.id and own.reserved_qty > 0) as line;
  if v_line_ids is null then
    perform order_raise_state('order', v_order.id, v_order.status::text, v_allowed, lacks => 'held units');
  end if;
  select decision.value ->> 'place' as place, line.id, line.refused, (decision.value ->> 'accept_qty')::integer + line.refused as held
    into v_wrong
    from jsonb_each(v_decisions) as decision
    left join unnest(v_line_ids, v_refused, v_reasons) as line (id, refused, reason) on line.id = decision.key::uuid
   where line.id is null or line.refused < 0 or line.refused > 0 and line.reason is null
   order by (decision.value ->> 'place')::integer
   limit 1;
  if v_wrong.refused < 0 then
    perform checkout_raise_invalid(format('decisions[%s].accept_qty', v_wrong.place), format('must be at most %s, the units that line %s holds', v_wrong.held, v_wrong.id));
  elsif v_wrong.refused > 0 then
    perform checkout_raise_invalid(format('decisions[%s].reason', v_wrong.place), 'is required where less is accepted than the line holds');
  elsif v_wrong.place is not null then
    perform checkout_raise_invalid(format('decisions[%s].line_item_id', v_wrong.place), 'must be a line of this order that holds stock');
  end if;

  perform inventory_return(v_order.cart_id, v_line_ids, true, v_refused);
  return order_change(
    v_order, 'decided', 'vendor_order.decided', v_line_ids, v_refused, null, v_reasons,
    change_key => vendor_order_decide.change_key, request_hash => v_hash);
end;
$$;

revoke execute on function vendor_order_decide(uuid, jsonb, text) from public;

comment on function vendor_order_decide(uuid, jsonb, text) is
  'A vendor''s answer to an order that is created_pending or on hold: decisions is a list of {line_item_id, accept_qty, reason}; lines not named are accepted whole. '
  'What is not accepted is available again and comes off the order (cents); the order is accepted, partially_accepted (also if the checkout rejected a line) or rejected, '
  'and one event vendor_order.decided is written. Decisions need a change_key, and the same request under it answers replayed = true; so does a repeat without '
  'either if nothing happened since. Locks the order, then stock in (product_id, slot) order, until the commit. Raises OC005 for decisions that are none, name a line twice or one '
  'of another order, accept more than is held or less without a reason, and for a bad key, OC006 for the key of another change, '
  'OC007 if a trigger keeps a row from being written, OC011 for an unknown order, OC012 for another state, or stock that cannot be given back; 55P03, 40001 and 40P01 are safe to retry.';
