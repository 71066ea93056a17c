-- depends: pycheckout_0003_event_types
-- transactional: false
--
-- Lines of carts that are still active get their title, category and unit from the host's products, where it has such
-- a table and the columns came with migration 0002. In batches with a commit each: no row stays locked for long.

do $$
declare
  v_sets text;
  v_last uuid := '00000000-0000-0000-0000-000000000000';
  v_batch uuid[];
begin
  if to_regclass('products') is null or checkout_is_ours('cart_items') then
    return;
  end if;
  select string_agg(format('%1$I = product.%1$I::text::%2$s', name, checkout_column_type('cart_items', name)), ', ')
    into v_sets
    from unnest('{title,category,unit}'::text[]) as name
   where checkout_is_ours('cart_items', name) and checkout_column_type('products', name) is not null;
  if v_sets is null or not checkout_is_ours('cart_items', 'title') then
    return;
  end if;

  loop
    select array_agg(cart.id order by cart.id) into v_batch
      from (select id from cart_records where status = 'active' and id > v_last order by id limit 1000) as cart;
    exit when v_batch is null;
    execute format('update cart_items as item set %s from products as product
                     where item.cart_id = any($1) and product.id = item.product_id and item.title = ''''', v_sets)
      using v_batch;
    v_last := v_batch[cardinality(v_batch)];
    commit;
  end loop;

  -- what came from products can come from there again: dropping the columns loses only what differs
  update checkout_ledger
     set definition = format('%1$s and not exists (select from products where products.id = cart_items.product_id and products.%2$I::text = cart_items.%2$I::text)',
                             definition, name)
   where kind = 'column' and table_name = 'cart_items' and name in ('title', 'category', 'unit')
     and definition not like '%products%' and checkout_column_type('products', name) is not null;
end
$$;
