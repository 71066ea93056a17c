-- payment_settle: judges anew what is due of an order and in what state its intent is, by its payment events.
--
-- For whoever changed an order's total too, right after that. The caller holds the order's lock, and passes the order with the
-- total that it has and the updated_at that it is to have; this locks the intent. An order without payment events stays as it
-- is: its figures are the host's.
--
-- A state that is none of the five is the host's and stays, as paid does, which says that the vendor has his money. rejected
-- is what some hosts call a failure. The enum of an existing database may lack a value, which is then never written.

create or replace function payment_settle(vendor_order vendor_orders)
returns vendor_orders
language plpgsql
as $$
declare
  v_labels constant text[] := enum_range(null::payment_status)::text[];
  v_order vendor_orders := payment_settle.vendor_order;
  v_intent payment_intents;
  v_sums record;
  v_state text;
  v_amount numeric;
  v_rows bigint;
begin
  v_sums := payment_sums(v_order.id);
  if v_sums.events = 0 then
    return v_order;
  end if;
  select intent.* into v_intent from payment_intents as intent where intent.order_id = v_order.id for no key update;

  update vendor_orders as paid
     set balance_due_cents = greatest(v_order.total_cents - v_sums.captured_cents, 0),
         refund_due_cents = greatest(v_sums.captured_cents - v_sums.refunded_cents - v_order.total_cents, 0),
         expires_at = case when v_order.promo_discount_cents is not null and v_sums.captured_cents > 0
                                and v_sums.captured_cents >= v_order.total_cents then null
                           else paid.expires_at end,
         updated_at = v_order.updated_at
   where paid.id = v_order.id
  returning paid.* into v_order;
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows((payment_settle.vendor_order).cart_id, 'vendor_orders', 1, v_rows);
  end if;

  v_state := case
               when v_intent.status::text <> all (array['unpaid', 'pending', 'settled', 'failed', 'rejected']) then v_intent.status::text
               when v_sums.captured_cents > 0 and v_sums.captured_cents >= v_order.total_cents then 'settled'
               when v_sums.captured_cents > 0 or v_sums.open_cents > 0 then 'pending'
               when v_sums.failures > 0 and 'failed' = any (v_labels) then 'failed'
               else 'unpaid'
             end;
  if v_state <> all (v_labels) then
    v_state := v_intent.status::text;
  end if;
  -- Nothing under way: all of it is to be paid. Else what was charged stays, and is no less than what came.
  v_amount := case when v_state in ('unpaid', 'failed', 'rejected') then v_order.total_cents
                   else greatest(v_intent.amount_cents, v_order.total_cents - v_order.balance_due_cents) end;
  if (v_state, v_amount) is distinct from (v_intent.status::text, v_intent.amount_cents) and v_intent.id is not null then
    v_intent.status := v_state::payment_status;
    update payment_intents as intent
       set status = v_intent.status, amount_cents = v_amount, updated_at = v_order.updated_at
     where intent.id = v_intent.id;
    get diagnostics v_rows = row_count;
    if v_rows <> 1 then
      perform checkout_raise_rows(v_order.cart_id, 'payment_intents', 1, v_rows);
    end if;
  end if;
  return v_order;
exception
  when numeric_value_out_of_range then
    perform checkout_raise_invalid('amount_cents', 'makes a sum of payments that does not fit');
    return null;   -- never reached
end;
$$;

revoke execute on function payment_settle(vendor_orders) from public;

comment on function payment_settle(vendor_orders) is
  'Step of whatever changes a locked order: where it has payment events, recomputes balance_due_cents, refund_due_cents and the state of its intent, '
  'and returns the order as it is then. Locks the intent. Raises OC005 if a sum does not fit its column, OC007 if a trigger keeps a row from being written.';
