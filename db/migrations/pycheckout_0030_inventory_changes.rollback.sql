do $$ begin perform checkout_migration_undo('pycheckout_0030_inventory_changes'); end $$;
