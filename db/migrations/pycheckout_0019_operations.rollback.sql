do $$ begin perform checkout_migration_undo('pycheckout_0019_operations'); end $$;
