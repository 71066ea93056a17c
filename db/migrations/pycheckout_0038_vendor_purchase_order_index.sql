-- depends: pycheckout_0037_buyer_purchase_order_index
-- transactional: false
-- cost: build vendor_orders
--
-- A vendor finds orders by the reference of their buyer.

create index concurrently if not exists idx_vendor_orders_vendor_store_id_purchase_order
    on vendor_orders (vendor_store_id, purchase_order)
 where purchase_order is not null;
