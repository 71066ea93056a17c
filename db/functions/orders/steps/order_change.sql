-- order_change: the one way in which something happens to a locked order after its checkout: units of its lines are turned
-- down, shipped or come back, its total is adjusted, it ends. Lines, order, intent, history and event, in this order; the
-- stock moved before (inventory_return), so that a change to many orders may move it at once.
--
-- What a line holds and what an order comes to are read from where the checkout and this function wrote them, never from
-- a status that the host may write, and never by adding lines up again: units that come off take exactly their part of the
-- line's total, discount and tax, and the promotion's share is capped at what is left of lines and shipping. An order that nothing
-- is left of, and of which nothing was ever shipped, owes neither shipping nor tax. A credit is capped at what is left as well;
-- what it lost by that stands in the history. Lines of the host's own count nowhere. An intent that is under way keeps its
-- amount: it tells what was charged, and the event tells the host what is too much. Where payments were recorded, what is due
-- follows from them (payment_settle); where none was, an intent that is settled or paid tells what was paid, and no less than
-- that comes off what is due. Whatever moves no money leaves the intent alone, its lock too.

create or replace function order_change(
  vendor_order vendor_orders,
  kind text,
  event_type text,
  line_ids uuid[],
  qtys integer[],
  reason text,
  line_reasons text[] default null,
  amount_cents bigint default null,
  details jsonb default null,
  change_key text default null,
  request_hash bytea default null,
  line_details jsonb default null
)
returns jsonb
language plpgsql
as $$
declare
  v_kind alias for kind;
  v_qtys alias for qtys;
  v_before constant vendor_orders := order_change.vendor_order;
  v_order vendor_orders := order_change.vendor_order;
  v_is_off constant boolean := v_kind in ('released', 'decided', 'canceled', 'expired');
  v_is_included constant boolean := v_order.tax_included is true;
  v_counter constant text := case when v_is_off then 'released' else v_kind end || '_qty';
  v_change order_changes;
  v_now timestamptz;
  v_off record;
  v_left record;
  v_lines_total numeric;
  v_room numeric;
  v_adjustments numeric;
  v_discounts numeric;
  v_total numeric;
  v_paid numeric;
  v_intent_ids uuid[];
  v_rows bigint;
begin
  v_now := order_next_instant(v_order);

  with parts as (
    select line.id, part.qty as units, part.reason, line.total_cents, line.discount_cents, line.tax_cents, line.qty, line.qty - order_units_left(row(line.*)::order_line_items) as off
      from unnest(order_change.line_ids, v_qtys, order_change.line_reasons) as part (line_id, qty, reason)
      join order_line_items as line on line.id = part.line_id
  ), amounts as (
    select parts.id, parts.units, parts.reason,
           order_part_cents(parts.total_cents, parts.off + parts.units, parts.qty) - order_part_cents(parts.total_cents, parts.off, parts.qty) as total,
           order_part_cents(parts.discount_cents, parts.off + parts.units, parts.qty) - order_part_cents(parts.discount_cents, parts.off, parts.qty) as discount,
           coalesce(order_part_cents(parts.tax_cents, parts.off + parts.units, parts.qty) - order_part_cents(parts.tax_cents, parts.off, parts.qty), 0) as tax
      from parts
  )
  select coalesce(sum(amounts.total), 0) as total, coalesce(sum(amounts.discount), 0) as discount, coalesce(sum(amounts.tax), 0) as tax,
         coalesce(jsonb_agg(jsonb_build_object('line_item_id', amounts.id, v_counter, amounts.units)
                            || case when v_kind = 'fulfilled' then '{}'
                                    else jsonb_build_object('total_cents', amounts.total, 'discount_cents', amounts.discount, 'tax_cents', amounts.tax) end
                            || case when v_kind = 'decided' then jsonb_build_object('reason', amounts.reason) else '{}' end
                            || coalesce(order_change.line_details, '{}')
                            order by amounts.id), '[]') as lines
    into v_off
    from amounts;
  if v_kind = 'fulfilled' then
    v_off.total := 0;
    v_off.discount := 0;
    v_off.tax := 0;
  end if;

  update order_line_items as line
     set reserved_qty = line.reserved_qty - case when v_kind = 'returned' then 0 else part.qty end,
         fulfilled_qty = nullif(order_units_fulfilled(row(line.*)::order_line_items) + case when v_kind = 'fulfilled' then part.qty else 0 end, 0),
         released_qty = case when v_is_off then nullif(coalesce(line.released_qty, 0) + part.qty, 0) else line.released_qty end,
         returned_qty = case when v_kind = 'returned' then coalesce(line.returned_qty, 0) + part.qty else line.returned_qty end,
         status = case when v_kind = 'returned' then line.status
                       when line.reserved_qty > part.qty then case when v_kind = 'decided' then 'accepted' else line.status end
                       when v_kind = 'fulfilled' or order_units_fulfilled(row(line.*)::order_line_items) > 0 then 'fulfilled'
                       else 'rejected' end,
         notes = case when v_is_off and line.reserved_qty <= part.qty and order_units_fulfilled(row(line.*)::order_line_items) = 0 then coalesce(part.reason, order_change.reason)
                      else line.notes end,
         updated_at = v_now
    from unnest(order_change.line_ids, v_qtys, order_change.line_reasons) as part (line_id, qty, reason)
   where line.id = part.line_id;
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(order_change.line_ids) then
    perform checkout_raise_rows(v_order.cart_id, 'order_line_items', cardinality(order_change.line_ids), v_rows);
  end if;

  select sum(line.reserved_qty) as held, sum(order_units_fulfilled(row(line.*)::order_line_items)) as fulfilled, sum(order_units_left(row(line.*)::order_line_items)) as units,
         sum(line.qty) - sum(line.reserved_qty) - sum(order_units_fulfilled(row(line.*)::order_line_items)) as released
    into v_left
    from order_line_items as line
   where line.order_id = v_order.id and line.cart_item_id = line.id;

  if v_left.units = 0 and v_left.fulfilled = 0 then
    v_order.subtotal_cents := 0;
    v_order.promo_discount_cents := 0;
    v_order.tax_cents := 0;
    v_order.transport_fee_cents := 0;
    v_order.shipping_tax_cents := case when v_before.shipping_tax_cents is not null then 0 end;
    v_lines_total := 0;
  else
    -- no more comes off than is there: a host may have taken off some of it already
    v_lines_total := v_before.total_cents::numeric - case when v_is_included then 0 else v_before.tax_cents end - v_before.transport_fee_cents
                     + v_before.promo_discount_cents - coalesce(v_before.adjustments_cents, 0);
    v_lines_total := v_lines_total - least(v_off.total, greatest(v_lines_total, 0));
    v_order.subtotal_cents := greatest(v_before.subtotal_cents - v_off.total - v_off.discount, 0);
    v_order.tax_cents := greatest(v_before.tax_cents - v_off.tax, 0);
    v_order.promo_discount_cents := least(v_before.promo_discount_cents, v_lines_total + v_before.transport_fee_cents);
  end if;
  v_room := v_lines_total - v_order.promo_discount_cents + v_order.transport_fee_cents + case when v_is_included then 0 else v_order.tax_cents end;
  v_adjustments := coalesce(v_before.adjustments_cents, 0)::numeric + coalesce(order_change.amount_cents, 0);
  if v_room + v_adjustments < 0 then
    if v_kind = 'adjusted' then
      raise exception 'order % comes to %, no % can be taken off', v_order.id, v_order.total_cents, -order_change.amount_cents::numeric
        using errcode = 'OC012',
              detail = jsonb_build_object('what', 'order', 'id', v_order.id, 'status', v_order.status, 'total_cents', v_order.total_cents,
                                          'amount_cents', order_change.amount_cents),
              hint = 'Credit no more than the order comes to.';
    end if;
    v_adjustments := -v_room;
  end if;
  if v_kind = 'expired' and v_room = 0 then   -- nobody pays for what nobody got
    v_adjustments := 0;
  end if;
  v_discounts := v_order.subtotal_cents - (v_lines_total - v_order.promo_discount_cents);
  v_total := v_room + v_adjustments;
  v_change.amount_cents := nullif(v_adjustments - coalesce(v_before.adjustments_cents, 0), 0);
  if v_total <> v_before.total_cents then
    -- of whoever is writing it (there is one an order), the outcome counts
    perform from payment_intents as intent where intent.order_id = v_order.id for no key update;
    select sum(intent.amount_cents) into v_paid
      from payment_intents as intent
     where intent.order_id = v_order.id and intent.status::text in ('settled', 'paid');
  end if;

  begin
    update vendor_orders as changed
       set status = case
                      when v_kind not in ('released', 'fulfilled', 'decided')
                           or v_order.status not in ('created_pending', 'accepted', 'partially_accepted', 'partially_fulfilled', 'hold') then v_order.status
                      when v_left.held = 0 and v_left.fulfilled = 0 then 'rejected'
                      when v_left.held = 0 then 'fulfilled'
                      when v_left.fulfilled > 0 then 'partially_fulfilled'
                      when v_kind = 'decided' and v_left.released = 0 then 'accepted'
                      when v_kind = 'decided' or v_order.status = 'accepted' then 'partially_accepted'
                      else v_order.status
                    end,
           subtotal_cents = v_order.subtotal_cents,
           discounts_cents = v_discounts,
           promo_discount_cents = v_order.promo_discount_cents,
           tax_cents = v_order.tax_cents,
           transport_fee_cents = v_order.transport_fee_cents,
           shipping_tax_cents = v_order.shipping_tax_cents,
           adjustments_cents = case when v_adjustments <> 0 or changed.adjustments_cents is not null then v_adjustments end,
           total_cents = v_total,
           balance_due_cents = least(greatest(v_order.balance_due_cents + (v_total - v_before.total_cents), 0),
                                     case when v_paid is not null then greatest(v_total - v_paid, 0) end),
           expires_at = v_order.expires_at,
           updated_at = v_now
     where changed.id = v_order.id
    returning changed.* into v_order;
    get diagnostics v_rows = row_count;
  exception when numeric_value_out_of_range then
    raise exception 'what order % would come to does not fit: %', v_before.id, sqlerrm
      using errcode = 'OC012',
            detail = jsonb_build_object('what', 'order', 'id', v_before.id, 'status', v_before.status, 'total_cents', v_before.total_cents,
                                        'amount_cents', order_change.amount_cents),
            hint = 'Adjust it by a smaller amount.';
  end;
  if v_rows <> 1 then
    perform checkout_raise_rows(v_before.cart_id, 'vendor_orders', 1, v_rows);
  end if;

  -- Of an intent that is under way, or paid, the amount tells what was charged; of one that asks for the rest, the rest follows.
  -- It is locked since its state was read.
  if v_total <> v_before.total_cents then
    select array_agg(intent.id) into v_intent_ids
      from payment_intents as intent
     where intent.order_id = v_order.id and intent.status::text in ('unpaid', 'failed', 'rejected');
    update payment_intents as intent
       set amount_cents = case when intent.amount_cents = v_before.balance_due_cents then v_order.balance_due_cents else v_order.total_cents end,
           updated_at = v_now
     where intent.id = any (v_intent_ids);
    get diagnostics v_rows = row_count;
    if v_rows <> coalesce(cardinality(v_intent_ids), 0) then
      perform checkout_raise_rows(v_before.cart_id, 'payment_intents', coalesce(cardinality(v_intent_ids), 0), v_rows);
    end if;
  end if;

  v_order := payment_settle(v_order);

  v_change.id := checkout_uuid();
  insert into order_changes (id, order_id, kind, lines, amount_cents, reason, details, change_key, request_hash, created_at)
  values (v_change.id, v_order.id, v_kind, v_off.lines, v_change.amount_cents, order_change.reason, order_change.details,
          order_change.change_key, order_change.request_hash, v_now)
  returning * into v_change;
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(v_before.cart_id, 'order_changes', 1, v_rows);
  end if;
  return order_emit_event(v_order, order_change.event_type, v_change) || jsonb_build_object('replayed', false);
end;
$$;

revoke execute on function order_change(vendor_orders, text, text, uuid[], integer[], text, text[], bigint, jsonb, text, bytea, jsonb) from public;

comment on function order_change(vendor_orders, text, text, uuid[], integer[], text, text[], bigint, jsonb, text, bytea, jsonb) is
  'Step of the order functions: writes what happens to a locked order whose stock has moved: counters and states of its lines, its own state and '
  'amounts (cents), its unpaid intent, the row of order_changes and the one event, and returns the event''s data with replayed = false. '
  'Raises OC005 if sums of payments do not fit, OC007 if a trigger keeps a row from being written, OC012 if the order would come to less than 0 or to more than its columns hold.';
