-- The relay's events alone: those without a time to be sent at are a host's own.
select 'outbox_events' as subject,
       format('has %%s unpublished events, the oldest for %%s',
              count(*), date_trunc('second', now() - min(created_at))) as problem,
       'Start pycheckout relay, or see what it meets: select * from outbox_backlog;' as remedy
  from outbox_events
 where published_at is null and next_attempt_at >= '-infinity'
having min(created_at) < now() - %(backlog)s::interval
