do $$ begin perform checkout_migration_undo('pycheckout_0029_quote_amounts'); end $$;
