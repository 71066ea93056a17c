-- depends: pycheckout_0018_checkout_requests
-- cost: none
--
-- Keys that sign ad tokens (JWS, HS256). No service role may read them: no grant is ever given on this table.

do $$
begin
  perform checkout_migration_open();
  if to_regtype('ad_placement') is null then
    create type ad_placement as enum ('hero', 'store', 'product');
  end if;
  if to_regtype('ad_target_type') is null then
    create type ad_target_type as enum ('store', 'product');
  end if;
  if to_regtype('ad_event_type') is null then
    create type ad_event_type as enum ('click', 'impression');
  end if;
  -- for the next migration, which builds it
  perform checkout_index_prepare('pycheckout_0019_ad_signing_keys', 'outbox_events', 'idx_outbox_events_conversion');
end
$$;

create table if not exists ad_signing_keys (
  kid text collate "C" primary key,
  secret bytea not null,
  inner_pad bytea not null,
  outer_pad bytea not null,
  active boolean not null default true,
  accepts_unnamed boolean not null default false,
  created_at timestamptz not null default now(),
  retired_at timestamptz
);

do $$
begin
  perform checkout_table_private('ad_signing_keys');
  perform checkout_migration_close('pycheckout_0019_ad_signing_keys');
  perform checkout_comment(said.name, said.comment) from (values
    ('ad_placement', 'Where the ad of a token was shown.'),
    ('ad_target_type', 'What an ad token is for: a store, whose order is attributed to it, or a product, whose lines are.'),
    ('ad_event_type', 'What an ad token attests, strongest first: a click is preferred to an impression.'),
    ('ad_signing_keys', 'Secrets that ad tokens are signed with. Written by ad_signing_key_put() and ad_signing_key_retire() alone.'),
    ('ad_signing_keys.kid', 'Name of the key, as the headers of its tokens have it.'),
    ('ad_signing_keys.secret', 'The key for HMAC-SHA-256, 32 bytes or more; the same for as long as the row is there.'),
    ('ad_signing_keys.inner_pad', 'Key xor 0x36 (RFC 2104), as secret as the key.'),
    ('ad_signing_keys.outer_pad', 'Key xor 0x5c (RFC 2104), as secret as the key.'),
    ('ad_signing_keys.active', 'Whether tokens that it signed count.'),
    ('ad_signing_keys.accepts_unnamed', 'Whether tokens whose header names no kid are checked with this key.'),
    ('ad_signing_keys.created_at', 'When the key was first put here.'),
    ('ad_signing_keys.retired_at', 'When ad_signing_key_retire() took it out of use. Null: it is active.')
  ) as said (name, comment);
end
$$;
