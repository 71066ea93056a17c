-- outbox_lock_event: locks an event of the relay until the transaction ends, and says what it is.

create or replace function outbox_lock_event(id uuid)
returns text
language plpgsql
as $$
declare
  v_is text;
begin
  select case when event.published_at is not null then 'published'
              when event.next_attempt_at = 'infinity' then 'parked'
              when event.claimed_until > clock_timestamp() then 'claimed'
              else 'waiting' end
    into v_is
    from outbox_events as event
   where event.id = outbox_lock_event.id and event.next_attempt_at is not null
     for update;
  if not found then
    perform checkout_raise_invalid('id', 'is no event of the relay');
  end if;
  return v_is;
end;
$$;

revoke execute on function outbox_lock_event(uuid) from public;

comment on function outbox_lock_event(uuid) is
  'Step of outbox_discard and outbox_replay: locks an event and returns what it is: published, parked, claimed (its lease has not ended) or '
  'waiting. Raises OC005 for an id that is no event of the relay.';
