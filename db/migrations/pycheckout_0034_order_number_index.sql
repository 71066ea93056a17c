-- depends: pycheckout_0033_order_records
-- transactional: false
-- cost: build vendor_orders
--
-- Orders are found by their number, and no number is given twice.

create unique index concurrently if not exists idx_vendor_orders_order_number
    on vendor_orders (order_number)
 where order_number is not null;
