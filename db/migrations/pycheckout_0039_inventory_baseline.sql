-- depends: pycheckout_0038_drop_checkout_groups
-- cost: scan inventory_items
--
-- Stock that was reserved before pycheckout came: nobody here knows which lines hold it, so the audit allows for it. It
-- is noted when the earlier checkout reserves no more and ours has not begun; no statement of the host waits for that.

do $$
begin
  perform checkout_migration_pin();
  if not checkout_is_ours('inventory_items')
     and not exists (select from checkout_ledger where migration = 'pycheckout_0039_inventory_baseline')
  then
    insert into inventory_baseline (product_id, reserved_qty)
    select product_id, reserved_qty from inventory_items where reserved_qty > 0;
    insert into checkout_ledger (migration, kind, table_name, name)
    values ('pycheckout_0039_inventory_baseline', 'noted_stock', 'inventory_items', 'inventory_baseline');
  end if;
end
$$;
