-- depends: pycheckout_0028_catch_up_anchors
--
-- PF-168: the anchor is an id on carts and orders, no longer a table. A checkout of the earlier system that still runs
-- is waited for, its rows are caught up, then every foreign key to the table goes, and the table with them. If it holds
-- rows it becomes checkout_groups_archive: the clicks and dates stand nowhere else. The DBA drops that.

do $$
begin
  perform checkout_migration_open();
  perform checkout_index_confirm('pycheckout_0008_order_anchor_index', 'idx_vendor_orders_checkout_group_id', 'vendor_orders', 'checkout_group_id', false);
  perform checkout_index_confirm('pycheckout_0009_cart_anchor_index', 'idx_cart_records_checkout_group_id', 'cart_records', 'checkout_group_id', true,
                                 'checkout_group_id IS NOT NULL');
end
$$;

do $$
declare
  v_key record;
  v_keeps_rows boolean;
  v_comment constant text := obj_description(to_regclass('checkout_groups'), 'pg_class');
  v_backfilled_before constant xid := (select definition::xid8::xid from checkout_ledger where kind = 'backfilled_before');
begin
  if to_regclass('checkout_groups') is null then
    return;
  end if;

  -- From here to the commit no checkout of the earlier system can write: all of them insert here first.
  lock table checkout_groups in access exclusive mode;

  -- Only groups that came since the backfill began, and orders that are still without their cart: the join of the whole
  -- tables would hold the lock for too long.
  update cart_records as cart
     set checkout_group_id = anchor.id
    from checkout_groups as anchor
   where age(anchor.xmin) <= age(v_backfilled_before)
     and cart.id = anchor.cart_id and cart.checkout_group_id is null;

  update vendor_orders as vendor_order
     set cart_id = anchor.cart_id
    from checkout_groups as anchor
   where vendor_order.checkout_group_id = anchor.id and anchor.cart_id is not null and vendor_order.cart_id is null;

  -- a loop, because every key takes an ALTER TABLE
  for v_key in
    select conrelid::regclass as owner, conname, pg_get_constraintdef(oid) as definition
      from pg_constraint
     where confrelid = 'checkout_groups'::regclass and contype = 'f' and conparentid = 0
     order by oid
  loop
    execute format('alter table %s drop constraint %I', v_key.owner, v_key.conname);
    insert into checkout_ledger (migration, kind, table_name, name, definition)
    values ('pycheckout_0029_drop_checkout_groups', 'dropped_constraint', v_key.owner::text, v_key.conname, v_key.definition);
  end loop;

  select exists (select from checkout_groups) into v_keeps_rows;
  if v_keeps_rows or not checkout_is_ours('checkout_groups') then
    alter table checkout_groups rename to checkout_groups_archive;
    comment on table checkout_groups_archive is
      'checkout_groups of the earlier system, as PF-168 found it. Nothing reads it; drop it once its clicks and dates are no longer wanted.';
    insert into checkout_ledger (migration, kind, name, definition)
    values ('pycheckout_0029_drop_checkout_groups', 'archived_table', 'checkout_groups', v_comment);
  else
    drop table checkout_groups;
    insert into checkout_ledger (migration, kind, name)
    values ('pycheckout_0029_drop_checkout_groups', 'dropped_table', 'checkout_groups');
  end if;
end
$$;
