-- depends: pycheckout_0001_baseline
-- cost: moment cart_vendor_groups, cart_items
--
-- Columns that some releases of the earlier system lack. Each takes the type of its counterpart, and a constant
-- default, since the host goes on inserting rows that do not name it.

do $$ begin perform checkout_migration_open(); perform checkout_migration_lock('cart_vendor_groups', 'cart_items'); end $$;

do $columns$
declare
  v_column record;
  v_default text;
begin
  execute format('alter table cart_vendor_groups add column if not exists discounts_cents %s',
                 checkout_column_type('cart_vendor_groups', 'subtotal_cents'));
  for v_column in
    select name, checkout_column_type('order_line_items', counterpart) as type
      from (values ('title', 'name'), ('category', 'category'), ('unit', 'unit')) as wanted (name, counterpart)
  loop
    v_default := '';
    if exists (select from pg_type where oid = to_regtype(v_column.type) and typtype = 'e') then
      execute format('select (enum_range(null::%s))[1]', v_column.type) into v_default;
    end if;
    execute format('alter table cart_items add column if not exists %I %s not null default %L', v_column.name, v_column.type, v_default);
  end loop;
end
$columns$;

do $$
begin
  perform checkout_migration_close('pycheckout_0002_missing_columns');
  perform checkout_comment(said.name, said.comment) from (values
    ('cart_vendor_groups.discounts_cents',
     'What the quote takes off, the promotion included, minor units; the checkout does not read it. Null: left out.'),
    ('cart_items.title', 'Name of the product, from the quote. Empty: the order line is named by its product_id.'),
    ('cart_items.category', 'Category of the product, from the quote; copied to the order line.'),
    ('cart_items.unit', 'What quantity counts, such as piece or bunch, from the quote; copied to the order line.')
  ) as said (name, comment);
  -- What migration name_active_lines copies from the host's products is no loss: it can come from there again.
  if checkout_column_type('products', 'id') = checkout_column_type('cart_items', 'product_id') then
    update checkout_ledger
       set definition = format('%s and not exists (select from products where products.id = cart_items.product_id '
                               'and products.%2$I::text = cart_items.%2$I::text)',
                               definition, name)
     where migration = 'pycheckout_0002_missing_columns' and kind = 'column' and table_name = 'cart_items'
       and definition not like '%from products%' and checkout_column_type('products', name) is not null;
  end if;
end
$$;
