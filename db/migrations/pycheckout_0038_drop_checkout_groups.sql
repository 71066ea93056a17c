-- depends: pycheckout_0037_catch_up_anchors
-- cost: moment checkout_groups, vendor_orders, cart_records, cart_vendor_groups, cart_items
--
-- The earlier checkout ends here, and ours begins with the functions, two migrations on. The anchor becomes an id on
-- carts and orders alone, without a table. A checkout that still runs is waited for, what it wrote is caught up, every
-- foreign key to the table goes, and the table with them. If it holds rows it becomes checkout_groups_archive, without
-- foreign keys: the clicks and dates stand nowhere else. The DBA drops that. discount_cents of orders becomes
-- discounts_cents. And converted carts change no more.

do $$ begin perform checkout_migration_open(); end $$;

do $$
declare
  v_migration constant text := 'pycheckout_0038_drop_checkout_groups';
  v_groups constant oid := to_regclass('checkout_groups');
  v_keeps_table boolean := not checkout_is_ours('checkout_groups');
  v_comment constant text := obj_description(v_groups, 'pg_class');
  v_tables regclass[];
  v_step record;
begin
  -- All locks at once and first, those of tables that only a foreign key leads to as well.
  select array_agg(distinct needed.relation) into v_tables
    from (select ledger.table_name::regclass as relation
            from checkout_ledger as ledger
           where ledger.migration = 'pycheckout_0021_converted_carts_immutable' and ledger.kind = 'trigger'
           union all
          select 'vendor_orders'::regclass
           union all
          select v_groups::regclass where v_groups is not null
           union all
          select unnest(array[conrelid, confrelid])::regclass
            from pg_constraint
           where contype = 'f' and conparentid = 0 and (confrelid = v_groups or conrelid = v_groups)) as needed;
  perform checkout_migration_lock(variadic v_tables);

  if v_groups is not null then
    if to_regclass('checkout_groups_changed') is not null then
      perform checkout_groups_catch_up(null);
      drop trigger if exists vendor_orders_take_cart on vendor_orders;
      drop trigger if exists checkout_groups_note_change on checkout_groups;
    end if;
    select v_keeps_table or exists (select from checkout_groups) into v_keeps_table;

    -- a loop, because every key takes an ALTER TABLE; those of a table that is dropped go with it
    for v_step in
      select conrelid::regclass as owner, confrelid::regclass as referenced, conname, pg_get_constraintdef(oid) as definition
        from pg_constraint
       where contype = 'f' and conparentid = 0 and (confrelid = v_groups or conrelid = v_groups and v_keeps_table)
       order by oid
    loop
      execute format('alter table %s drop constraint %I', v_step.owner, v_step.conname);
      insert into checkout_ledger (migration, kind, table_name, name, definition)
      values (v_migration, 'dropped_constraint', v_step.owner::text, v_step.conname, v_step.definition),
             (v_migration, 'referenced_table', v_step.owner::text, v_step.referenced::text, null);   -- to be locked when the key comes back
    end loop;

    if v_keeps_table then
      alter table checkout_groups rename to checkout_groups_archive;
      comment on table checkout_groups_archive is
        'checkout_groups of the earlier system, as the migration found it. Only checkout_erase() and a rollback touch it; drop it once its clicks and dates are no longer wanted.';
      insert into checkout_ledger (migration, kind, name, definition) values (v_migration, 'archived_table', 'checkout_groups', v_comment);
    else
      drop table checkout_groups;
      insert into checkout_ledger (migration, kind, name) values (v_migration, 'dropped_table', 'checkout_groups');
    end if;
  end if;

  if checkout_column_type('vendor_orders', 'discounts_cents') is null then
    alter table vendor_orders rename column discount_cents to discounts_cents;
    insert into checkout_ledger (migration, kind, table_name, name) values (v_migration, 'renamed_column', 'vendor_orders', 'discounts_cents');
  end if;

  -- a loop, because every trigger takes an ALTER TABLE
  for v_step in
    select ledger.table_name, ledger.name
      from checkout_ledger as ledger
     where ledger.migration = 'pycheckout_0021_converted_carts_immutable' and ledger.kind = 'trigger'
       and not exists (select from checkout_ledger as done
                        where done.migration = v_migration and done.kind = 'enabled_trigger' and done.name = ledger.name)
  loop
    execute format('alter table %I enable trigger %I', v_step.table_name, v_step.name);
    insert into checkout_ledger (migration, kind, table_name, name) values (v_migration, 'enabled_trigger', v_step.table_name, v_step.name);
  end loop;

  perform checkout_comment('vendor_orders.discounts_cents',
    'Discounts of its lines that are not rejected, and the promotion''s share, at most what is left of them, minor units.');
end
$$;
