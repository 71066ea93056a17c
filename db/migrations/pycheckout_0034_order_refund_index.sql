-- depends: pycheckout_0033_order_deadline_index
-- transactional: false
-- cost: build vendor_orders
--
-- Orders that somebody owes money of: few, and looked for by doctor and by whoever pays it back.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0030_order_amounts', 'vendor_orders', 'idx_vendor_orders_refund_due_cents'); end $$;

create index concurrently if not exists idx_vendor_orders_refund_due_cents
    on vendor_orders (refund_due_cents)
 where refund_due_cents > 0;
