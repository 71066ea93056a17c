-- Indexes that the migrations made, or found and kept. What the tables of an earlier system had of its own is not asked for.
with wanted (name, definition, is_ours) as materialized (   -- apart: Citus joins no table with a catalog
  values ('idx_cart_items_cart_id', 'index concurrently idx_cart_items_cart_id on cart_items (cart_id)', checkout_is_ours('cart_items')),
         ('idx_cart_records_checkout_group_id',
          'unique index concurrently idx_cart_records_checkout_group_id on cart_records (checkout_group_id) where checkout_group_id is not null', true),
         ('idx_cart_records_converted_at_valid_until',
          'index concurrently idx_cart_records_converted_at_valid_until on cart_records (coalesce(converted_at, valid_until))', true),
         ('idx_checkout_requests_created_at', 'index concurrently idx_checkout_requests_created_at on checkout_requests (created_at)', true),
         ('idx_inventory_changes_created_at', 'index concurrently idx_inventory_changes_created_at on inventory_changes (created_at)', true),
         ('idx_order_changes_order_id_change_key',
          'unique index concurrently idx_order_changes_order_id_change_key on order_changes (order_id, change_key) where change_key is not null', true),
         ('idx_order_changes_order_id_created_at_id',
          'index concurrently idx_order_changes_order_id_created_at_id on order_changes (order_id, created_at, id)', true),
         ('idx_order_line_items_order_id',
          'index concurrently idx_order_line_items_order_id on order_line_items (order_id)', checkout_is_ours('order_line_items')),
         ('idx_outbox_events_conversion',
          'unique index concurrently idx_outbox_events_conversion on outbox_events (aggregate_id, event_type) '
          'where event_type in (''checkout.vendor_orders_created'', ''checkout.converted'')', true),
         ('idx_outbox_events_due',
          'index concurrently idx_outbox_events_due on outbox_events (claim_id, next_attempt_at, id) '
          'where published_at is null and next_attempt_at < ''infinity''', true),
         ('idx_outbox_events_published',
          'index concurrently idx_outbox_events_published on outbox_events (created_at) '
          'where published_at is not null and next_attempt_at is not null', true),
         ('idx_outbox_events_waiting',
          'index concurrently idx_outbox_events_waiting on outbox_events (aggregate_id, created_at, id) '
          'where published_at is null and next_attempt_at >= ''-infinity''', true),
         ('idx_vendor_orders_buyer_store_id_created_at_id',
          'index concurrently idx_vendor_orders_buyer_store_id_created_at_id on vendor_orders (buyer_store_id, created_at, id)', true),
         ('idx_vendor_orders_cart_id', 'index concurrently idx_vendor_orders_cart_id on vendor_orders (cart_id)', true),
         ('idx_vendor_orders_checkout_group_id',
          case when checkout_is_ours('vendor_orders')
               then 'unique index concurrently idx_vendor_orders_checkout_group_id on vendor_orders (checkout_group_id, vendor_store_id)'
               else 'index concurrently idx_vendor_orders_checkout_group_id on vendor_orders (checkout_group_id)' end, true),
         ('idx_vendor_orders_expires_at_id',
          'index concurrently idx_vendor_orders_expires_at_id on vendor_orders (expires_at, id) '
          'where status = ''created_pending'' and expires_at is not null', true),
         ('idx_vendor_orders_order_number',
          'unique index concurrently idx_vendor_orders_order_number on vendor_orders (order_number) where order_number is not null',
          checkout_is_ours('vendor_orders', 'order_number')),
         ('idx_vendor_orders_purchase_order_created_at_id',
          'index concurrently idx_vendor_orders_purchase_order_created_at_id on vendor_orders (purchase_order, created_at, id) '
          'where purchase_order is not null', true),
         ('idx_vendor_orders_refund_due_cents',
          'index concurrently idx_vendor_orders_refund_due_cents on vendor_orders (refund_due_cents) where refund_due_cents > 0', true),
         ('idx_vendor_orders_vendor_store_id_created_at_id',
          'index concurrently idx_vendor_orders_vendor_store_id_created_at_id on vendor_orders (vendor_store_id, created_at, id)', true)
)
select wanted.name as subject,
       case when index.indexrelid is null then 'is gone: what it was for reads whole tables, and what it kept unique may come twice'
            else 'is invalid, as a build that broke off leaves it: nothing reads it' end as problem,
       case when index.indexrelid is null then format('create %s;', wanted.definition)
            else format('reindex index concurrently %I;', wanted.name) end as remedy
  from wanted
  left join pg_index as index on index.indexrelid = to_regclass(quote_ident(current_schema()) || '.' || wanted.name)
 where wanted.is_ours and (index.indexrelid is null or not index.indisvalid or not index.indisready)
 order by wanted.name
