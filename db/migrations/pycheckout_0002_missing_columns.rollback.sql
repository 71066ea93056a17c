do $$ begin perform checkout_migration_undo('pycheckout_0002_missing_columns'); end $$;
