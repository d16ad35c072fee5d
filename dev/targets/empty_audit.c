/* An LD_AUDIT library that wants to know nothing: what auditing itself costs. */
unsigned la_version(unsigned version)
{
	return version;
}

unsigned la_objopen(void *map, long namespace, unsigned long *cookie)
{
	(void)map, (void)namespace, (void)cookie;
	return 0;
}

unsigned la_objclose(unsigned long *cookie)
{
	(void)cookie;
	return 0;
}
