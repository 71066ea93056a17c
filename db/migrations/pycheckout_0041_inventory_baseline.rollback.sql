delete from inventory_baseline;
do $$ begin perform checkout_migration_undo('pycheckout_0041_inventory_baseline'); end $$;
