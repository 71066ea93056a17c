do $$
declare
  v_unknown jsonb;
begin
  perform checkout_migration_pin();

  if exists (select from checkout_ledger where migration = 'pycheckout_0029_drop_checkout_groups' and kind = 'archived_table') then
    if to_regclass('checkout_groups_archive') is null then
      raise exception 'checkout_groups cannot be restored: its archive was dropped'
        using errcode = 'object_not_in_prerequisite_state';
    end if;
    alter table checkout_groups_archive rename to checkout_groups;
    execute format('comment on table checkout_groups is %L', (
      select definition from checkout_ledger where migration = 'pycheckout_0029_drop_checkout_groups' and kind = 'archived_table'));
  elsif exists (select from checkout_ledger where migration = 'pycheckout_0029_drop_checkout_groups' and kind = 'dropped_table') then
    create table checkout_groups (
      id uuid primary key default gen_random_uuid(),
      buyer_store_id uuid not null,
      cart_id uuid constraint checkout_groups_cart_fk references cart_records (id) on delete set null,
      attributed_ad_click_id uuid,
      created_at timestamptz not null default now()
    );
  end if;

  if to_regclass('checkout_groups') is not null then
    select jsonb_agg(id) into v_unknown
      from (select id from vendor_orders as vendor_order
             where not exists (select from checkout_groups as anchor where anchor.id = vendor_order.checkout_group_id)
             order by id limit 20) as orders;
    if v_unknown is not null then
      raise exception 'orders were made since checkout_groups went, and it has no row for them: %', v_unknown
        using errcode = 'object_in_use', detail = v_unknown::text;
    end if;
  end if;
end
$$;
do $$ begin perform checkout_migration_undo('pycheckout_0029_drop_checkout_groups'); end $$;
