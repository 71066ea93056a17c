do $$ begin perform checkout_migration_undo('pycheckout_0016_inventory'); end $$;
