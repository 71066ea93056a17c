-- depends: pycheckout_0031_order_records
-- transactional: false
-- cost: build vendor_orders
--
-- Orders are found by their number, and no number is given twice. Where the column is the host's, so are its indexes: one of this
-- name, of a table that is empty, keeps the statement from building any, and goes again.

do $$
begin
  if not checkout_is_ours('vendor_orders', 'order_number') and to_regclass('idx_vendor_orders_order_number') is null then
    create index idx_vendor_orders_order_number on order_changes (order_id);
  end if;
end
$$;

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0030_order_amounts', 'vendor_orders', 'idx_vendor_orders_order_number'); end $$;

create unique index concurrently if not exists idx_vendor_orders_order_number
    on vendor_orders (order_number)
 where order_number is not null;

do $$
begin
  if exists (select from pg_index where indexrelid = to_regclass('idx_vendor_orders_order_number') and indrelid = 'order_changes'::regclass) then
    drop index idx_vendor_orders_order_number;
  end if;
end
$$;
