-- The baseline is a copy of what inventory_items says; it is no loss.
delete from inventory_baseline;
do $$ begin perform checkout_migration_undo('pycheckout_0014_inventory_slots'); end $$;
