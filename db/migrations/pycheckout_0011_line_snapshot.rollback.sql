do $$ begin perform checkout_migration_undo('pycheckout_0011_line_snapshot'); end $$;
