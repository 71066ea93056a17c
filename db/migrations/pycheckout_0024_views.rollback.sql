do $$ begin perform checkout_migration_undo('pycheckout_0024_views'); end $$;
