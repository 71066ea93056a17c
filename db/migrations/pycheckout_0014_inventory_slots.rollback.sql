do $$ begin perform checkout_migration_undo('pycheckout_0014_inventory_slots'); end $$;
