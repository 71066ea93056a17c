-- depends: pycheckout_0001_baseline
--
-- Columns that some releases of the earlier system lack. Each takes the type of its counterpart, and a constant
-- default, since the host goes on inserting rows that do not name it.

do $$ begin perform checkout_migration_open(); end $$;

do $columns$
declare
  v_unit_type constant text := checkout_column_type('order_line_items', 'unit');
  v_unit_default text := '';
begin
  if exists (select from pg_type where oid = to_regtype(v_unit_type) and typtype = 'e') then
    execute format('select (enum_range(null::%s))[1]', v_unit_type) into v_unit_default;
  end if;
  alter table cart_items add column if not exists title text not null default '';
  alter table cart_items add column if not exists category text not null default '';
  execute format('alter table cart_items add column if not exists unit %s not null default %L', v_unit_type, v_unit_default);
  execute format('alter table cart_vendor_groups add column if not exists discounts_cents %s',
                 checkout_column_type('cart_vendor_groups', 'subtotal_cents'));
end
$columns$;

do $$ begin perform checkout_migration_close('pycheckout_0002_missing_columns'); end $$;
