"""spark-submit jobs/deliver.py --env ENV --run-date YYYY-MM-DD"""

from recsys_spark.night import main

if __name__ == "__main__":
    main("deliver")
