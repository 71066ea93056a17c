-- depends: pycheckout_0027_purged_carts_index
-- cost: none
--
-- Events of ours that are unsent already become the relay's. Those of other types stay the host's.

do $$
begin
  perform checkout_migration_pin();
  perform checkout_index_confirm('pycheckout_0024_outbox_due_index', 'idx_outbox_events_due', 'outbox_events', 'claim_id, next_attempt_at, id', false,
                                 '%published_at IS NULL AND next_attempt_at < ''infinity''%');
  perform checkout_index_confirm('pycheckout_0025_outbox_waiting_index', 'idx_outbox_events_waiting', 'outbox_events', 'aggregate_id, created_at, id', false,
                                 '%published_at IS NULL AND next_attempt_at >= ''-infinity''%');
  perform checkout_index_confirm('pycheckout_0026_outbox_published_index', 'idx_outbox_events_published', 'outbox_events', 'created_at', false,
                                 '%published_at IS NOT NULL AND next_attempt_at IS NOT NULL%');
  perform checkout_index_confirm('pycheckout_0027_purged_carts_index', 'idx_cart_records_converted_at_valid_until', 'cart_records',
                                 'COALESCE(converted_at, valid_until)', false);

  update outbox_events
     set next_attempt_at = created_at
   where published_at is null and next_attempt_at is null
     and event_type in ('checkout.vendor_orders_created', 'checkout.converted', 'vendor_order.canceled', 'vendor_order.decided',
                        'vendor_order.adjusted', 'vendor_order.expired', 'vendor_order.extended', 'order_line.released', 'order_line.fulfilled',
                        'order_line.returned', 'payment.changed');
end
$$;
