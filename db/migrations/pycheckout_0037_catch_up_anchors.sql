-- depends: pycheckout_0036_views
-- transactional: false
-- cost: none
--
-- What came to checkout_groups since the backfill, in batches with a commit each, so that next to nothing is left
-- for the migration that locks it.

do $$
declare
  v_done integer;
  v_give_up timestamptz;
begin
  -- for the session, not the transaction: a commit would end it; yoyo opens a session for each migration
  perform checkout_migration_pin(for_transaction => false);
  if to_regclass('checkout_groups') is null or to_regclass('checkout_groups_changed') is null then
    return;
  end if;

  v_give_up := clock_timestamp() + current_setting('pycheckout.patience')::interval;
  loop
    begin
      v_done := checkout_groups_catch_up(500);
    exception when lock_not_available then
      if clock_timestamp() > v_give_up then
        raise;
      end if;
      v_done := null;
    end;
    commit;
    exit when v_done = 0;
    if v_done is null then
      perform pg_sleep(0.1);
    end if;
  end loop;
end
$$;
