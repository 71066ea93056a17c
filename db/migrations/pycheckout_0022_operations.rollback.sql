do $$ begin perform checkout_migration_undo('pycheckout_0022_operations'); end $$;
