-- depends: pycheckout_0034_order_refund_index
-- transactional: false
-- cost: build vendor_orders
--
-- Orders are found by the reference that their buyers gave them, newest first.

create index concurrently if not exists idx_vendor_orders_purchase_order_created_at_id
    on vendor_orders (purchase_order, created_at, id)
 where purchase_order is not null;
