do $$ begin perform checkout_migration_undo('pycheckout_0027_views'); end $$;
