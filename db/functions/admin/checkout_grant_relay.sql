-- checkout_grant_relay: lets a role publish events, and see nothing else.

create or replace function checkout_grant_relay(role_name text)
returns void
language plpgsql
set search_path from current
as $$
begin
  perform checkout_register_role(checkout_grant_relay.role_name, 'relay');
end;
$$;

revoke execute on function checkout_grant_relay(text) from public;

comment on function checkout_grant_relay(text) is
  'Gives a role EXECUTE on outbox_claim, outbox_extend, outbox_ack, outbox_fail, outbox_release, outbox_replay, outbox_discard, outbox_purge, '
  'checkout_metrics and checkout_version, and no table. Sets a lock_timeout and remembers the role as checkout_grant does. For the owner. Raises OC005 for an unknown role, OC007 if a trigger keeps the row of the role from being written.';
