-- order_next_instant: when what happens to a locked order now happened, which is after all that happened to it before: its events are
-- sent and its history is read in this order.
--
-- The clock may have stepped back, and updated_at is the host's too, or its trigger's, which may date an order back to the
-- beginning of a transaction. What only checkouts and order functions write is asked as well: the order's creation, which is
-- the instant of its conversion's events, and its changes and payments.

create or replace function order_next_instant(vendor_order vendor_orders)
returns timestamptz
language plpgsql
as $$
declare
  v_order constant vendor_orders := order_next_instant.vendor_order;
begin
  return greatest(
    clock_timestamp(),
    greatest(
      v_order.updated_at,
      v_order.created_at,
      (select max(change.created_at) from order_changes as change where change.order_id = v_order.id),
      (select max(event.created_at) from payment_events as event where event.order_id = v_order.id)) + interval '1 microsecond');
end;
$$;

revoke execute on function order_next_instant(vendor_orders) from public;

comment on function order_next_instant(vendor_orders) is
  'Step of whatever changes a locked order: the time of it, later than that of the conversion and of every change and payment of the order.';
