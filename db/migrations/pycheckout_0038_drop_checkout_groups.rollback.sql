do $$
declare
  v_migration constant text := 'pycheckout_0038_drop_checkout_groups';
  v_step record;
  v_archived boolean;
  v_unknown jsonb;
  v_tables regclass[];
begin
  perform checkout_migration_pin();
  select exists (select from checkout_ledger where migration = v_migration and kind = 'archived_table') into v_archived;
  if v_archived and to_regclass('checkout_groups_archive') is null then
    raise exception 'checkout_groups cannot be restored: its archive was dropped'
      using errcode = 'object_not_in_prerequisite_state';
  end if;

  -- All locks at once and first, those of the tables as well that a foreign key to checkout_groups, or of it, comes back to.
  select array_agg(distinct needed.relation) into v_tables
    from (select quote_ident(ledger.table_name)::regclass as relation
            from checkout_ledger as ledger
           where ledger.migration = v_migration and ledger.kind = 'enabled_trigger'
           union all
          select to_regclass(unnest(array[ledger.table_name, ledger.name]))
            from checkout_ledger as ledger
           where ledger.migration = v_migration and ledger.kind = 'referenced_table'
           union all
          select 'vendor_orders'::regclass
           union all
          select to_regclass('checkout_groups_archive')) as needed
   where needed.relation is not null;
  perform checkout_migration_lock(variadic v_tables);

  -- a loop, because every trigger takes an ALTER TABLE
  for v_step in
    select table_name, name from checkout_ledger where migration = v_migration and kind = 'enabled_trigger'
  loop
    execute format('alter table %I disable trigger %I', v_step.table_name, v_step.name);
  end loop;

  if exists (select from checkout_ledger where migration = v_migration and kind = 'renamed_column') then
    alter table vendor_orders rename column discounts_cents to discount_cents;
  end if;

  if v_archived then
    alter table checkout_groups_archive rename to checkout_groups;
    execute format('comment on table checkout_groups is %L', (
      select definition from checkout_ledger where migration = v_migration and kind = 'archived_table'));
    -- what its foreign key would have done, had it been there
    update checkout_groups set cart_id = null
     where cart_id is not null and not exists (select from cart_records as cart where cart.id = checkout_groups.cart_id);
  elsif exists (select from checkout_ledger where migration = v_migration and kind = 'dropped_table') then
    create table checkout_groups (
      id uuid primary key default gen_random_uuid(),
      buyer_store_id uuid not null,
      cart_id uuid constraint checkout_groups_cart_fk references cart_records (id) on delete set null,
      attributed_ad_click_id uuid,
      created_at timestamptz not null default now()
    );
    perform checkout_table_private('checkout_groups');
  end if;

  if to_regclass('checkout_groups') is not null then
    select jsonb_agg(id) into v_unknown
      from (select id from vendor_orders as vendor_order
             where not exists (select from checkout_groups as anchor where anchor.id = vendor_order.checkout_group_id)
             order by id limit 20) as orders;
    if v_unknown is not null then
      raise exception 'orders were made since checkout_groups went, and it has no row for them: %', v_unknown
        using errcode = 'object_in_use', detail = v_unknown::text;
    end if;
    if to_regclass('checkout_groups_changed') is not null then
      create or replace trigger checkout_groups_note_change
      after insert or update of cart_id on checkout_groups
      for each row when (new.cart_id is not null)
      execute function checkout_group_note_change();

      create or replace trigger vendor_orders_take_cart
      before insert on vendor_orders
      for each row when (new.cart_id is null)
      execute function vendor_order_take_cart();
    end if;
  end if;
end
$$;
do $$ begin perform checkout_migration_undo('pycheckout_0038_drop_checkout_groups'); end $$;
