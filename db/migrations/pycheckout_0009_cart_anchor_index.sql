-- depends: pycheckout_0008_order_anchor_index
-- transactional: false
-- cost: build cart_records
--
-- One anchor a cart, one cart an anchor.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0005_order_cart_id', 'cart_records', 'idx_cart_records_checkout_group_id'); end $$;

create unique index concurrently if not exists idx_cart_records_checkout_group_id
    on cart_records (checkout_group_id)
 where checkout_group_id is not null;
