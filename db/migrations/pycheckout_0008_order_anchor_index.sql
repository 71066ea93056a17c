-- depends: pycheckout_0007_backfill_anchors
-- transactional: false
-- cost: build vendor_orders
--
-- PF-168: the orders of one checkout are read by their anchor.

create index concurrently if not exists idx_vendor_orders_checkout_group_id
    on vendor_orders (checkout_group_id);
