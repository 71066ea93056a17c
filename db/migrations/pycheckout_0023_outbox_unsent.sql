-- depends: pycheckout_0022_outbox_waiting_index
--
-- Events of ours that are unsent already become the relay's. Those of other types stay the host's.

do $$
begin
  perform checkout_migration_pin();
  perform checkout_index_confirm('pycheckout_0021_outbox_due_index', 'idx_outbox_events_due', 'outbox_events', 'claim_id, next_attempt_at, id', false,
                                 '%published_at IS NULL AND next_attempt_at < ''infinity''%');
  perform checkout_index_confirm('pycheckout_0022_outbox_waiting_index', 'idx_outbox_events_waiting', 'outbox_events', 'aggregate_id, created_at, id', false,
                                 '%published_at IS NULL AND next_attempt_at >= ''-infinity''%');

  update outbox_events
     set next_attempt_at = created_at
   where published_at is null and next_attempt_at is null
     and event_type in ('checkout.vendor_orders_created', 'checkout.converted', 'vendor_order.canceled', 'order_line.released', 'order_line.fulfilled');
end
$$;
