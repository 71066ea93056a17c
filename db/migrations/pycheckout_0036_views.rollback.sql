do $$ begin perform checkout_migration_undo('pycheckout_0036_views'); end $$;
