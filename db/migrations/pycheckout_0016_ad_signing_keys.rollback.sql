do $$ begin perform checkout_migration_undo('pycheckout_0016_ad_signing_keys'); end $$;
