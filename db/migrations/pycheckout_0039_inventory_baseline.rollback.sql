delete from inventory_baseline;
do $$ begin perform checkout_migration_undo('pycheckout_0039_inventory_baseline'); end $$;
