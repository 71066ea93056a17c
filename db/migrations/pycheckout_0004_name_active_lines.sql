-- depends: pycheckout_0003_event_types
-- transactional: false
-- cost: batches cart_items
--
-- Lines of carts that are still active get their title, category and unit from the host's products, where it has such
-- columns and those of the lines came with missing_columns. In batches with a commit each: no row stays locked for long.

do $$
declare
  v_sets text;
  v_untouched text;
  v_last uuid := '00000000-0000-0000-0000-000000000000';
  v_batch uuid[];
begin
  -- for the session, not the transaction: a commit would end it; yoyo opens a session for each migration
  perform checkout_migration_pin(for_transaction => false);

  select string_agg(format('%1$I = coalesce(product.%1$I::text::%2$s, item.%1$I)', name, type), ', '),
         string_agg(format('item.%I = %s', name, pg_get_expr(def.adbin, def.adrelid)), ' and ')
    into v_sets, v_untouched
    from unnest('{title,category,unit}'::text[]) as name
   cross join checkout_column_type('cart_items', name) as type
    join pg_attribute as attribute on attribute.attrelid = 'cart_items'::regclass and attribute.attname = name
    join pg_attrdef as def on def.adrelid = attribute.attrelid and def.adnum = attribute.attnum
   where checkout_is_ours('cart_items', name) and not checkout_is_ours('cart_items')
     and (type in ('text', checkout_column_type('products', name)))
     and checkout_column_type('products', name) is not null
     and checkout_column_type('products', 'id') = checkout_column_type('cart_items', 'product_id');
  if v_sets is null then
    return;
  end if;

  loop
    select array_agg(cart.id order by cart.id) into v_batch
      from (select id from cart_records where status = 'active' and id > v_last order by id limit 500) as cart;
    exit when v_batch is null;
    -- a line that the host is writing at this moment is passed over: its quotes go on without names
    execute format('with free as (select id from cart_items where cart_id = any($1) for no key update skip locked)
                    update cart_items as item set %s from products as product, free
                     where item.id = free.id and product.id = item.product_id and %s', v_sets, v_untouched)
      using v_batch;
    v_last := v_batch[cardinality(v_batch)];
    commit;
  end loop;
end
$$;
