do $$ begin perform checkout_migration_undo('pycheckout_0014_line_snapshot'); end $$;
