do $$ begin perform checkout_migration_undo('pycheckout_0017_inventory_slots'); end $$;
